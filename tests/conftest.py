"""What all tests stand on."""

import signal

# Started in the background of a shell without job control, a process ignores Ctrl-C, and so do its children: the tests
# of interrupts would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
