import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(
        signal.SIGINT, signal.SIG_DFL
    )  # until Trio takes it, Ctrl-C ends the process with no traceback

from greeter_trio._cli import main

raise SystemExit(main())
