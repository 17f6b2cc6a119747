"""Other projects' ways to describe a preprocessing, translated into this project's."""
