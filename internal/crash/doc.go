// Package crash owns the tests of what an engine's death and a power failure leave: real engines that are killed, and whose disk is taken
// away, at exactly one of the calls by which an operation changes the data root.
//
// It promises that the points of a run are named, and can be had again. It must never hold code that a program uses: all but this
// comment are tests. DHOW_CRASH_POINTS=n takes n points of each operation in place of a few, "all" every one.
package crash
