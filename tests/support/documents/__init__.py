"""The commands that the documents tell people to give: found, and run as a story."""
