"""The stages, a module each: what decides a result, the function that makes it, and its check.

A stage's ``VERSION`` is raised when a change of code changes its results. It is part of what
decides them, so raising it reruns the stage and what follows from it. Modules here import nothing
heavy: rules and the command line read them before anything is computed.
"""
