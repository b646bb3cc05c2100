from ftd.cli import main

main("evidence.commands")
