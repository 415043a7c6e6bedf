// Errors of calls: ConnectError with one of gRPC's canonical codes.

import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";

export { Code, ConnectError };

/** The code of an error of this package; Code.Unknown for any other. */
export function codeOf(error: unknown): Code {
  return ConnectError.from(error).code;
}

const FINAL: ReadonlySet<Code> = new Set([
  Code.InvalidArgument,
  Code.DeadlineExceeded,
  Code.NotFound,
  Code.AlreadyExists,
  Code.PermissionDenied,
  Code.FailedPrecondition,
  Code.OutOfRange,
  Code.Unimplemented,
  Code.Unauthenticated,
]);

/** Reports whether another attempt can mend a stream that ended with this error. Lost connections have different codes in Node and in
 * browsers. */
export function passing(error: unknown): boolean {
  return !FINAL.has(codeOf(error));
}

/** Turns the error of a call on a lost connection into Code.Unavailable: Node and browsers have different codes for it, which a node
 * itself never sends. */
export const lost: Interceptor = (next) => async (request) => {
  const unavailable = (error: unknown): unknown => {
    const { code, cause, rawMessage } = ConnectError.from(error);
    const here = code === Code.Canceled || (cause !== undefined && HERE.has(code));
    return here && !request.signal.aborted
      ? new ConnectError(
          `the connection to the node was lost: ${rawMessage}`,
          Code.Unavailable,
          undefined,
          undefined,
          error,
        )
      : error;
  };
  try {
    const response = await next(request);
    if (!response.stream) {
      return response;
    }
    const { message } = response;
    const guarded = async function* () {
      try {
        yield* message;
      } catch (error) {
        throw unavailable(error);
      }
    };
    return { ...response, message: guarded() };
  } catch (error) {
    throw unavailable(error);
  }
};

const HERE: ReadonlySet<Code> = new Set([Code.Aborted, Code.Internal, Code.Unknown]);

export function invalid(why: string): ConnectError {
  return new ConnectError(why, Code.InvalidArgument);
}

/** The name of a code in the JSON of errors, `not_found`. */
const NAMES: ReadonlyMap<string, Code> = new Map(
  Object.entries(Code)
    .filter((entry): entry is [string, Code] => typeof entry[1] === "number")
    .map(([name, code]) => [name.replace(/(?<=.)[A-Z]/g, (letter) => `_${letter}`).toLowerCase(), code]),
);

/** The error in the body of a REST answer. */
export function fromBody(status: number, body: string): ConnectError {
  try {
    const { code, message } = JSON.parse(body) as { code?: unknown; message?: unknown };
    if (typeof code === "string" && typeof message === "string") {
      return new ConnectError(message, NAMES.get(code) ?? Code.Unknown);
    }
  } catch {
    // No JSON: the answer of a proxy.
  }
  const code = status === 401 ? Code.Unauthenticated : status >= 500 ? Code.Unavailable : Code.Unknown;
  return new ConnectError(`the node answered with status ${status}`, code);
}
