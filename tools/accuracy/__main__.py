import logging
import warnings

from accuracy.command import main

# The libraries that counts are compared with warn and log about what they lack.
warnings.simplefilter("ignore")
logging.disable()
main()
