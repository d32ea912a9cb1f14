# Folds pip's output to one readable line per package, and keeps every error.
/^Collecting / { printf "    resolving %s\n", $2; fflush(); next }
/^ *Downloading .*\(/ { printf "    fetching  %s %s %s\n", $2, $3, $4; fflush(); next }
/^Installing collected packages/ { print "    installing (this takes a minute or two)"; fflush(); next }
/^Successfully installed/ { printf "    done: %d packages\n", NF - 2; fflush(); next }
/^(ERROR|error|WARNING: (Failed|Retrying))|No space left|[Cc]ould not/ { print; fflush(); next }
