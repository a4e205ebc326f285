# The filter of gotest: reads the output of go test -v on several packages, which come one after the other.

# A package's line closes it. One is held back, so that the number of skips can stand before the last.
function close_package(line) { lines = 0; split("", said); if (held != "") print held; held = line; fflush() }

function show_failure(   i) {
	for (i = 1; i <= lines; i++)
		if (buffer[i] !~ /^=== / && buffer[i] !~ /^ *--- PASS/) print buffer[i]
}

/^# / { compiler = 1 } # errors of the compiler or of vet may come amid the lines of other packages
/^=== / { compiler = 0; test = $3 }
/^ok[ \t]/ { compiler = 0; close_package($0); next }
/^FAIL[ \t]/ { compiler = 0; show_failure(); close_package($0); next }
/^\?[ \t]/ { compiler = 0; print; next }
/^FAIL$/ { failed = 1; next }
compiler { print; next }
/^ +[^ ]+\.go:[0-9]+: / { said[test] = $0 }
/^ *--- SKIP/ { skips++; print; if ($3 in said) print said[$3] }
{ buffer[++lines] = $0 }

END {
	show_failure() # of a run that was cut short: what came last says why
	printf "skipped tests: %d\n", skips
	if (held != "") print held
	if (failed) print "FAIL"
}
