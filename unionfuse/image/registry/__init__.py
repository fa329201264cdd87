"""Speak to registries, by the API of distribution-spec."""
