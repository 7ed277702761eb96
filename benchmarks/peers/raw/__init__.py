"""The reference: by hand, with no framework."""

PACKAGES = ["pydantic"]
