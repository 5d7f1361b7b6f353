package cmd

const nonBlocking = 0
