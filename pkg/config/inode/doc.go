// Package inode tells files apart by what their file system knows of them: to write to a file, or to put another
// in its place, changes a number or a time that nobody can set.
package inode
