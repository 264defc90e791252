"""Builds the embedded demo model: prepare the data, train, evaluate and export.

None of this runs in the service, which only loads the exported folder.
"""
