from accuracy.command import main

main()
