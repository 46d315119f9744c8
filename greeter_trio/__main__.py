from greeter_trio._cli.early import prepare

prepare()  # from here on, signals end the process, and without a traceback

from greeter_trio._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
