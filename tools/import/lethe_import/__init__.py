"""Turns the checkpoints that people have into bundles that Lethe reads. Nothing in a checkpoint is ever executed."""


class Refused(Exception):
    """The checkpoint is not imported; the message says why and what to do."""
