"""`unionfuse image`: one file a command, each with a `command` that is loaded when it is used."""
