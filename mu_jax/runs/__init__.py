"""One run: its settings, its directory, and what in it is up to date.

config      every setting
records     dataclasses as JSON, and back
choices     settings that a sweep chose
artefacts   what each kind of artefact is made from, and where it lies
run         the model, the edits, what is to be made
stamps      which artefacts are up to date
directory   reads and writes artefacts
contents    what files of a run may hold
files       how they are read and written
journal     what a long measurement has found so far
"""
