"""Tasks that are plain functions: arguments in, JSON out.  Nothing here knows of Runyard."""


def shout(word: str) -> str:
    """Return *word* in capitals."""
    print(f"shouting {word!r}")
    return word.upper()


def join(first: str, second: str) -> str:
    """Return a greeting."""
    greeting = f"{first}, {second}!"
    print(greeting)
    return greeting
