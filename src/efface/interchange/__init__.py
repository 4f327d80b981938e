"""Writes edits in other tools' file formats, checks them with these tools' loaders, and reads such files."""
