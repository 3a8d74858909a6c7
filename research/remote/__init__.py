"""Runs and data sets in object stores: copied, as files, between these and this machine."""
