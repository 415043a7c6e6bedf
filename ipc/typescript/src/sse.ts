// Server-sent events (HTML, section 9.2) of a byte stream.

/** One event. */
export interface ServerEvent {
  readonly event: string;
  readonly data: string;
}

// An event is at most a command with its envelope, which a node bounds by 1 MiB.
const EVENT_CHARS = 4 << 20;

/** Returns the events of a stream without comments, ids and retry times. */
export async function* events(body: AsyncIterable<Uint8Array>): AsyncGenerator<ServerEvent, void, undefined> {
  const decoder = new TextDecoder();
  let rest = "";
  let event = "";
  let data: string[] = [];
  for await (const bytes of body) {
    rest += decoder.decode(bytes, { stream: true });
    const lines = rest.split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop() ?? "";
    if (rest.length > EVENT_CHARS) {
      throw new Error(`an event of over ${EVENT_CHARS} characters`);
    }
    for (const line of lines) {
      const [, field, value] = /^(event|data)(?:: ?(.*))?$/s.exec(line) ?? [];
      if (line === "") {
        if (data.length > 0) {
          yield { event: event || "message", data: data.join("\n") };
        }
        event = "";
        data = [];
      } else if (field === "event") {
        event = value ?? "";
      } else if (field === "data") {
        data.push(value ?? "");
      }
    }
  }
}
