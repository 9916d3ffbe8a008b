"""From a call's arguments to a value: checked, planned, run on an engine, differentiated by its framework."""
