"""One run: its settings, its directory, and what in it is up to date.

config      every setting
records     dataclasses as JSON, and back
choices     settings that a sweep chose
run         which artefacts are up to date
directory   where artefacts lie
contents    what files of a run may hold
files       how they are read and written
journal     what a long measurement has found so far
"""
