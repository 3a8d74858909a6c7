"""A person's own experiment: Python files, read once, run from memory and kept with each run.

`files` finds the file that --experiment names and the modules that it imports from its own folder;
`running` lets Python import them; `experiments` checks that they are an experiment. Imports no
JAX, so that --help answers at once.
"""
