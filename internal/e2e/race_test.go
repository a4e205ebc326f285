//go:build race

package e2e

// buildFlags make the program under test report data races too: it then logs them and ends with status 66.
var buildFlags = []string{"-race"}
