// The five words of the protocol (W1), and the two bytes that end a line.

const text = (string) => Buffer.from(string, "latin1");

export const [LF, CR] = text("\n\r");
export const NOTHING = text("");
export const WELCOME = text("Welcome!\n");
export const PROMPT = text("What's your name?");
export const GOODBYE = text("Goodbye!\n");
export const SORRY = text("Sorry, ");
export const EXIT = text("exit");

export const hello = (name) => Buffer.concat([text("Hello "), name, text("!\n")]);
export const sorry = (reason) => Buffer.concat([SORRY, text(`${reason}.\n`)]);
export const line = (name) => Buffer.concat([name, text("\n")]);
