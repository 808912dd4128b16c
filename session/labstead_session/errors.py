"""What keeps `share` from doing what it was asked; each is told to people as one line."""


class Mistake(Exception):
    """What was asked for makes no sense; the message says why, and what to do."""


class Hindered(Exception):
    """What was asked for is right, and something is in its way; the message says what."""
