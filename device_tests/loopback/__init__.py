"""Device ends on this machine, for tests: an ssh server, a device that speaks adb, a board that speaks serial lines.

The user's programs at the other end are the real ones. What they prove is the protocol, never a measurement of a phone.
"""
