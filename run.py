"""`python run.py strategy=pcdarts` searches, discretises, retrains, evaluates once and exports.

The command line is in `archsmith/cli/main.py`.
"""

from archsmith.cli.main import main

if __name__ == "__main__":
    main()
