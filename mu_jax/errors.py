"""The one error a user sees, and the one warning."""


class UserError(ValueError):
    """Bad input that a person can mend.

    Every message is one line of the form "got ...; expected ...; remedy ...". The
    command line prints it without a traceback and exits with status 2.
    """

    def __init__(self, got: str, expected: str = "", remedy: str = ""):
        parts = [got, expected and f"expected {expected}", remedy]
        super().__init__("; ".join(" ".join(p.split()) for p in parts if p))


class Doubt(UserWarning):
    """What somebody should know who is going to believe the numbers; one line."""
