from ftd.cli import main

main()
