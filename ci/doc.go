// Package ci holds the checks of the repository itself: who may import whom, which packages
// stay out of production code, how long files are, where links in the documentation lead.
// They are tests, so that one command runs them and each failure carries its reason.
package ci
