package gateway

// Keys of log fields. Messages are constants; what varies is in these fields.
const (
	fieldRequestID = "request_id"
	fieldMethod    = "method"
	fieldPrincipal = "principal"
	fieldRemote    = "remote"
	fieldCode      = "code"
	fieldReason    = "reason"
	fieldMillis    = "millis"
	fieldListener  = "listener"
	fieldAddress   = "address"
	fieldPanic     = "panic"
	fieldStack     = "stack"
	fieldStatus    = "status"
	fieldText      = "text"
)
