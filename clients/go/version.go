package milepost

// Version is the version of this client. It is part of the user agent of every call.
const Version = "0.1.0"
