"""Every error Comptoir raises: each class carries its HTTP status and its OpenAI `type` and `code`.

Messages never contain text of a request: they name fields, limits and remedies only, because they travel
to clients and into logs. OpenAI's error object is described at
https://platform.openai.com/docs/guides/error-codes.
"""

from __future__ import annotations

from typing import Any, ClassVar

# `Retry-After` where nothing more exact is known: when a place in this process may be free, and a model back.
PLACE_RETRY_S, MODEL_RETRY_S = 1.0, 5.0


class ComptoirError(Exception):
    """Base of the tree. `message` is safe to show; `param` names the request field or configuration key."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = "internal_error"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def as_openai(self) -> dict[str, Any]:
        """The body an OpenAI client expects: `{"error": {message, type, param, code}}`."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


# ---- what an operator meets: configuration, catalogue, licences ------------------------------------


class ConfigError(ComptoirError):
    """A setting or configuration file is wrong; `param` is the dotted key."""

    code = "config_error"


class CatalogueError(ConfigError):
    """A catalogue entry is missing or invalid."""

    code = "catalogue_error"


class LicenceError(ConfigError):
    """A model's licence does not allow this use, or a duty it imposes has not been acknowledged."""

    code = "licence_refused"


class StackError(ComptoirError):
    """The local stack could not be started, found or stopped."""

    code = "stack_error"


# ---- what a client meets: 4xx ------------------------------------------------------------------------


class RequestError(ComptoirError):
    """The request is wrong and repeating it unchanged will not help."""

    status = 400
    type = "invalid_request_error"
    code: ClassVar[str | None] = None


class MalformedJsonError(RequestError):
    """The body is not a JSON object."""

    code = "invalid_json"


class InvalidFieldError(RequestError):
    """A field has a wrong type or a value out of range."""

    code = "invalid_value"


class UnsupportedFieldError(RequestError):
    """A field is not on the allow-list of its endpoint."""

    code = "unsupported_parameter"


class MissingFieldError(RequestError):
    """A required field is absent."""

    code = "missing_required_parameter"


class ContextLengthError(RequestError):
    """Prompt and completion together do not fit the model's context."""

    code = "context_length_exceeded"


class EngineRejectedError(RequestError):
    """The engine refused the request for a reason the gateway could not foresee."""

    code = "invalid_request"


class UnsupportedEndpointError(RequestError):
    """The model exists but does not serve this endpoint (chat on an embedding model, say)."""

    code = "unsupported_endpoint"


class AuthenticationError(RequestError):
    """No key, or one that is not known."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class PermissionDeniedError(RequestError):
    """The key is valid and may not use this model."""

    status = 403
    type = "permission_error"
    code = "model_not_allowed"


class ScopeError(PermissionDeniedError):
    """The key is valid and is not for this endpoint."""

    code = "scope_missing"


class ModelNotFoundError(RequestError):
    """No running model has this name."""

    status = 404
    code = "model_not_found"


class RouteNotFoundError(RequestError):
    """There is no such endpoint."""

    status = 404
    code = "unknown_url"


class MethodNotAllowedError(RequestError):
    """The endpoint exists for another HTTP method."""

    status = 405
    code = "method_not_allowed"


class BodyTooLargeError(RequestError):
    """The body is larger than the gateway accepts."""

    status = 413
    code = "request_too_large"


class UnsupportedMediaTypeError(RequestError):
    """The body is not declared as JSON."""

    status = 415
    code = "unsupported_media_type"


class MalformedHttpError(RequestError):
    """What came is not a request as RFC 9112 defines it."""

    code = "invalid_http"


class RequestTimeoutError(RequestError):
    """The request did not arrive in time."""

    status = 408
    code = "request_timeout"


class UnsupportedEncodingError(RequestError):
    """The body is compressed in a way that is not understood; `Accept-Encoding` says which is."""

    status = 415
    code = "unsupported_content_encoding"


class ExpectationFailedError(RequestError):
    """The header `Expect` asks for something else than 100-continue."""

    status = 417
    code = "expectation_failed"


class HeadTooLargeError(RequestError):
    """The request line and headers are longer than anyone needs."""

    status = 431
    code = "head_too_large"


class TooManyConnectionsError(RequestError):
    """One address has more connections, or requests, open than it may."""

    status = 429
    type = "rate_limit_error"
    code = "too_many_connections"


class RateLimitedError(RequestError):
    """The caller, or the model, is at its limit; `retry_after_s` says when to come back."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


# ---- what a client meets: 5xx ------------------------------------------------------------------------


class ModelUnavailableError(ComptoirError):
    """The model is known and has no replica that answers now."""

    status = 503
    type = "service_unavailable_error"
    code = "model_unavailable"


class EndpointFullError(ComptoirError):
    """The endpoint has no room for one more connection."""

    status = 503
    type = "service_unavailable_error"
    code = "endpoint_full"


class ShuttingDownError(ComptoirError):
    """This process is going away and did not finish the request; another one answers."""

    status = 503
    type = "service_unavailable_error"
    code = "shutting_down"


class TransferEncodingError(ComptoirError):
    """The body is framed in a way that is not understood."""

    status = 501
    code = "unsupported_transfer_encoding"


class HttpVersionError(ComptoirError):
    """Another version of HTTP than 1.0 and 1.1."""

    status = 505
    code = "unsupported_http_version"


class EngineFailedError(ComptoirError):
    """The engine broke while it worked on the request."""

    status = 502
    type = "server_error"
    code = "engine_error"


class EngineTimeoutError(ComptoirError):
    """The engine did not answer in time."""

    status = 504
    type = "timeout_error"
    code = "engine_timeout"


class AnswerTooLongError(EngineTimeoutError):
    """The engine is at work on the answer and has not finished it in time: the request asks for too much."""

    code = "answer_too_long"
