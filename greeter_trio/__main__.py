import signal

# From here on, until Trio takes it, Ctrl-C ends the process with no traceback.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from greeter_trio._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
