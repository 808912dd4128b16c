"""The rooms of `tests/hosts/host`: one for each thing that a throwaway host is made of."""
