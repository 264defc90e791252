"""Every family of the source documents, from a folder to the answers."""
