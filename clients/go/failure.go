package milepost

import (
	"errors"
	"reflect"
	"strings"
	"time"
)

const (
	maxCodeLength    = 255
	maxMessageLength = 10_000
)

// ErrCancelAcknowledged is what a [Handler] returns when it has stopped because a cancel was
// requested: the operation is cancelled. If none was requested, it fails the attempt.
var ErrCancelAcknowledged = errors.New("milepost: the requested cancel is acknowledged")

// PermanentFailure is an error of a [Handler] after which the operation is not tried again.
type PermanentFailure struct {
	// Code is the kind of error for programs, such as CODEC_UNSUPPORTED. By default it is named
	// after the type of Err.
	Code string
	// Message is the reason for the owner of the operation; by default the text of Err.
	Message string
	// Source is the part of the input or of the system that caused the error.
	Source string
	// Details are further facts.
	Details map[string]any
	// Err is the cause.
	Err error
}

// Error returns the message, or the text of the cause.
func (e *PermanentFailure) Error() string { return textOf(e.Message, e.Err) }

// Unwrap returns the cause.
func (e *PermanentFailure) Unwrap() error { return e.Err }

// RetryLater is an error of a [Handler] after which the operation is tried again, if it has an
// attempt left. Other errors are tried again likewise; this one has a pause and a code.
type RetryLater struct {
	// Delay is the pause before the next attempt, at most 24 h. 0 means that of the retry policy.
	Delay time.Duration
	// Code, Message, Source, Details and Err are those of a [PermanentFailure].
	Code    string
	Message string
	Source  string
	Details map[string]any
	Err     error
}

// Error returns the message, or the text of the cause.
func (e *RetryLater) Error() string { return textOf(e.Message, e.Err) }

// Unwrap returns the cause.
func (e *RetryLater) Unwrap() error { return e.Err }

func textOf(message string, err error) string {
	if message == "" && err != nil {
		return err.Error()
	}
	return message
}

// panicError is the panic of a handler.
type panicError struct {
	text  string
	stack []byte
}

func (e *panicError) Error() string { return "panic: " + e.text }

// unstorableResult is the reason why a result cannot be stored.
type unstorableResult struct{ err error }

func (e *unstorableResult) Error() string {
	return "the result cannot be stored: " + e.err.Error()
}

func (e *unstorableResult) Unwrap() error { return e.err }

// failureOf returns the failure that an error of a handler is, whatever it is.
func failureOf(err error) Failure {
	if permanent, ok := as[*PermanentFailure](err); ok {
		return Failure{Errors: []OperationError{described(
			permanent.Code, permanent.Message, permanent.Source, permanent.Details, permanent.Err, err,
		)}}
	}
	if later, ok := as[*RetryLater](err); ok {
		failure := Failure{Retryable: true, Errors: []OperationError{described(
			later.Code, later.Message, later.Source, later.Details, later.Err, err,
		)}}
		if later.Delay > 0 {
			failure.RetryDelay = &later.Delay
		}
		return failure
	}
	_, isUnstorable := err.(*unstorableResult)
	return Failure{
		Retryable: !isUnstorable, // the next attempt would have the same result
		Errors:    []OperationError{described("", "", "", nil, err, err)},
	}
}

// described returns the error that is stored: the code and the message that were given, or else
// those of the cause.
func described(
	code, message, source string, details map[string]any, cause, err error,
) OperationError {
	if cause == nil {
		cause = err
	}
	if strings.TrimSpace(code) == "" {
		code = codeOf(cause)
	}
	if strings.TrimSpace(message) == "" {
		message = safeText(err)
	}
	return OperationError{
		Code: storable(code, maxCodeLength), Message: storable(message, maxMessageLength),
		Source: storable(source, maxCodeLength), Details: details,
	}
}

// codeOf returns the name of the type of the error; Error for those of the standard library that
// are only text.
func codeOf(err error) string {
	switch err.(type) {
	case *panicError:
		return "Panic"
	case *unstorableResult:
		return "UnstorableResult"
	}
	kind := reflect.TypeOf(err)
	for kind.Kind() == reflect.Pointer {
		kind = kind.Elem()
	}
	name := kind.Name()
	if name == "" || kind.PkgPath() == "errors" || kind.PkgPath() == "fmt" {
		return "Error"
	}
	return strings.ToUpper(name[:1]) + name[1:]
}

// safeText returns the text of the error, whose method is code of its own and may panic.
func safeText(err error) (text string) {
	kind := reflect.TypeOf(err).String()
	defer func() {
		if recover() != nil || strings.TrimSpace(text) == "" {
			text = kind + " without a readable text"
		}
	}()
	return err.Error()
}

// storable returns the text without what neither UTF-8 nor the store can hold.
func storable(text string, maxLength int) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\ufffd"), "\x00", `\x00`)
	if runes := []rune(text); len(runes) > maxLength {
		return string(runes[:maxLength])
	}
	return text
}
