"""What a person uses in a session and on the host alike: sharing files. It needs nothing but Python and Linux."""
