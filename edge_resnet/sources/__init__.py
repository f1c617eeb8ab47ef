"""Where frames come from: the protocol, the table of URI schemes, and how a source is opened. Knows no library."""
