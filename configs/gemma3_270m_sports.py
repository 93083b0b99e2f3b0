"""placeholder"""

from mu_jax.config import Config


def get_config() -> Config:
    return Config(name="gemma3_270m_sports")
