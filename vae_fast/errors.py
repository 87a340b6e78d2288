"""Errors that callers may want to catch by name."""


class BackendUnavailableError(RuntimeError):
    """An asked-for backend cannot run these tensors; the message says why and what to do."""
