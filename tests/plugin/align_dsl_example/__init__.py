"""A plug-in package: see pyproject.toml for the doors it goes through."""
