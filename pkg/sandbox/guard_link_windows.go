package sandbox

// noFollow is no flag here: there is no sandbox whose links could be followed.
const noFollow = 0
