from greeter_trio._cli import main

raise SystemExit(main())
