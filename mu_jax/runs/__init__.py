"""One run: its settings, its directory, and what in it is up to date.

config      every setting
checks      which settings make no sense
loading     settings from a config file or a run directory
records     dataclasses as JSON, and back
swept       settings that a sweep chose
artefacts   what each kind of artefact is made from, and where it lies
run         the model, the edits, what is to be made
stamps      which artefacts are up to date
own         classes from outside mu_jax: their names, and where they are found
sources     the text of a file, and of what it imports from beside itself
calls       whose fault it is when a method fails
returned    what methods hand over
directory   reads and writes artefacts
contents    what files of a run may hold
files       how they are read and written
journal     what a long measurement has found so far
"""
