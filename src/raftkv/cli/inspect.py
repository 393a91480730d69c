def inspect() -> None:
    """x."""
