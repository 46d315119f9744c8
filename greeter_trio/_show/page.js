"use strict";
// The page's script: stepping, prediction, bytes, exercises, and recordings of the reader's own.
// It makes elements and text nodes only; nothing from a recording is ever taken for markup.
(() => {
  const $ = (id) => document.getElementById(id);
  const SVG = "http://www.w3.org/2000/svg";
  const ROW = 22, CHARACTER = 7.8, TIME = 66, CLIENT = 215, SERVER = 590, NOTES = 730, WIDTH = 1010;
  const FLAGS = ["CWR", "ECE", "URG", "ACK", "PSH", "RST", "SYN", "FIN"]; // bits 104 to 111
  const LANES = ["message", "eof", "segment"];

  const WORDS = {
    zh: {
      skip: "跳到对话", language: "语言", theme: "主题", system: "跟随系统", light: "浅色", dark: "深色",
      intro: "时间从上往下。实线箭头是被记录的一端说的话或收到的话；虚线箭头是 TCP 报文段。每条生命线旁边是该端程序的系统调用和 TCP 状态；最右边是协议核心所做的事。",
      load: "打开自己的记录", conversation: "对话", beside: "并排显示", relative: "相对序号",
      first: "开头", back: "上一步", forward: "下一步", last: "全部", play: "播放", pause: "暂停",
      speed: "速度", predict: "先预测", question: "接下来轮到谁？", client: "客户端", server: "服务器",
      clientTcp: "客户端 TCP", serverTcp: "服务器 TCP", core: "核心", framing: "分帧", deadline: "期限",
      bytes: "字节与首部", exercises: "练习", numbers: "填写号码", check: "检查", show: "显示答案",
      numbersHelp: "相对的序列号和确认号只由标志位和长度决定：SYN 和 FIN 各占一个号，每个字节占一个号。没有意义的字段请留空。",
      order: "给报文段排序", orderHelp: "用按钮移动，或者拖动。", shuffle: "打乱",
      right: "正确", wrong: "有错误", up: "上移", down: "下移", none: "无", of: "共",
      noSegments: "这段记录里没有报文段。", pick: "选择一行，查看它的字节和首部。",
      damaged: "这不是可以读取的记录：第 {n} 行。", empty: "这份记录里没有对话。",
      flags: "标志位（首部第 104–111 位）", seq: "序列号（第 32–63 位）", ack: "确认号（第 64–95 位）",
      length: "数据长度", window: "窗口（第 112–127 位）", assumed: "没有捕获：这是按 TCP 规则推想的。",
      connection: "连接", transfer: "传输", termination: "终止", meaningless: "没有 ACK，此字段无意义",
    },
    en: {
      pause: "Pause", right: "Right", wrong: "Not yet", up: "Up", down: "Down", none: "none", of: "of",
      noSegments: "There are no segments in this recording.",
      pick: "Choose a row to see its bytes and its header.",
      damaged: "This is no recording that can be read: line {n}.", empty: "There is no conversation in it.",
      flags: "Flags (bits 104–111 of the header)", seq: "Sequence number (bits 32–63)",
      ack: "Acknowledgment number (bits 64–95)", length: "Length of the data",
      window: "Window (bits 112–127)", assumed: "Not captured: it is what TCP's rules let expect.",
      connection: "connection", transfer: "transfer", termination: "termination",
      meaningless: "without ACK this field means nothing",
    },
  };
  document.querySelectorAll("[data-t]").forEach((each) => { WORDS.en[each.dataset.t] = each.textContent; });

  let conversations = JSON.parse($("data").textContent);
  let language = (navigator.language || "").startsWith("zh") ? "zh" : "en";
  let current = Infinity; // index of the last row that is shown
  let timer = null, guesses = 0, hits = 0, order = [];
  const t = (word) => WORDS[language][word] ?? WORDS.en[word] ?? word;
  const shown = () => conversations[+$("which").value];

  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function shape(name, attributes, text) {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // Text

  const wide = /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60\uffe0-\uffe6]|[\u{1f300}-\u{1faff}]|[\u{20000}-\u{3fffd}]/u;
  const columns = (text) => [...text].reduce((sum, char) => sum + (wide.test(char) ? 2 : 1), 0);
  function shortened(text, most) {
    if (columns(text) <= most) return text;
    let kept = "";
    for (const char of text) {
      if (columns(kept + char) > most - 1) break;
      kept += char;
    }
    return kept + "…";
  }
  const ms = (seconds) => (seconds * 1000).toFixed(1);
  const escapes = (text) => [...text].map((char) => /[\p{Cc}\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/u.test(char)
    ? (char === "\n" ? "⏎" : "\\x" + char.codePointAt(0).toString(16).padStart(2, "0")) : char).join("");
  const bytesOf = (hex) => Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
  const hexOf = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

  // Numbers of segments, absolute or relative to the first of their direction

  function firstNumbers(rows) {
    const first = {};
    for (const row of rows) {
      const { segment, end } = row;
      if (!segment) continue;
      const other = end === "client" ? "server" : "client";
      first[end] ??= segment.seq;
      if (segment.flags.includes("ACK")) first[other] ??= segment.ack - 1;
    }
    return first;
  }

  function numbersOf(row, first, relative) {
    const { segment, end } = row;
    const other = end === "client" ? "server" : "client";
    const from = (number, base) => (relative ? (number - base + 2 ** 32) % 2 ** 32 : number);
    return {
      seq: from(segment.seq, first[end]),
      ack: segment.flags.includes("ACK") && segment.ack !== undefined ? from(segment.ack, first[other]) : null,
    };
  }

  function labelOf(row, first) {
    if (!row.segment) return row.text;
    const { seq, ack } = numbersOf(row, first, $("relative").checked);
    const { flags, length } = row.segment;
    const parts = [flags.join(" ")];
    if (length || flags.includes("SYN") || flags.includes("FIN")) parts.push(`seq ${seq}`);
    if (ack !== null) parts.push(`ack ${ack}`);
    if (length) parts.push(`len ${length}`);
    return parts.join("  ");
  }

  // Drawing: the same as the drawing that stands in the page for readers without script

  function draw(conversation) {
    const rows = conversation.rows, height = (rows.length + 2) * ROW, first = firstNumbers(rows);
    const svg = shape("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "group", "aria-label": conversation.title });
    const put = (parent, x, index, text, anchor, style) => parent.append(
      shape("text", { x, y: index * ROW + 15, "text-anchor": anchor, class: style }, text));
    let start = 0;
    rows.forEach((row, index) => {
      if (index + 1 < rows.length && rows[index + 1].phase === row.phase) return;
      const y = (start + 1) * ROW, size = (index + 1 - start) * ROW;
      if (row.phase !== "transfer") svg.append(shape("rect", { class: "band", x: 0, y, width: WIDTH, height: size }));
      if (index - start > 3) svg.append(shape("text", {
        class: "soft", "text-anchor": "middle", transform: `translate(${WIDTH - 6} ${y + size / 2}) rotate(-90)`,
      }, t(row.phase)));
      start = index + 1;
    });
    put(svg, CLIENT, 0, t("client"), "middle", "client");
    put(svg, SERVER, 0, t("server"), "middle", "server");
    put(svg, TIME, 0, "ms", "end", "soft");
    for (const x of [CLIENT, SERVER]) svg.append(shape("path", { class: "life", d: `M${x} ${ROW}V${height - ROW}` }));
    for (const [send, receive] of conversation.links) {
      const [x1, x2] = rows[send].end === "client" ? [CLIENT, SERVER] : [SERVER, CLIENT];
      svg.append(shape("path", { class: "arrow link", "data-row": receive, d: `M${x1} ${(send + 1.5) * ROW}L${x2} ${(receive + 1.5) * ROW}` }));
    }
    rows.forEach((row, at) => {
      const index = at + 1, y = index * ROW + ROW / 2, group = shape("g", { class: "row", "data-row": at });
      group.append(shape("rect", { class: "back", x: 0, y: index * ROW, width: WIDTH, height: ROW }));
      put(group, TIME, index, ms(row.at), "end", "soft");
      const label = shortened(labelOf(row, first), 42);
      if (LANES.includes(row.kind)) {
        const style = row.kind === "segment" ? "segment" : "", fromClient = row.end === "client";
        const size = columns(label) * CHARACTER, assumed = row.segment?.assumed ? " assumed" : "";
        const line = fromClient ? `M${CLIENT + 14 + size} ${y}H${SERVER - 4}`
          : `M${CLIENT + 4} ${y}h10M${SERVER} ${y}H${CLIENT + 24 + size}`;
        group.append(shape("path", { class: `arrow ${style}${assumed}`, d: line }));
        group.append(shape("path", { class: `head ${style}`, d: fromClient ? `M${SERVER - 2} ${y}l-8 -4v8z` : `M${CLIENT + 2} ${y}l8 -4v8z` }));
        put(group, fromClient ? CLIENT + 8 : CLIENT + 18, index, label, "start", style && "soft");
      } else if (row.kind === "remark") {
        put(group, CLIENT + 10, index, shortened(row.text, 95), "start", "");
      } else if (row.kind !== "core") {
        const atClient = row.end === "client";
        put(group, atClient ? CLIENT - 10 : SERVER + 10, index, shortened(row.text, 17),
          atClient ? "end" : "start", row.kind === "tcp" ? row.end : "");
      }
      if (row.notes.length) put(group, NOTES, index, shortened(row.notes.join("; "), 35), "start", "soft");
      group.addEventListener("mouseenter", () => inspect(conversation, at));
      group.addEventListener("click", () => { if (conversation === shown()) go(at); });
      svg.append(group);
    });
    return svg;
  }

  function section(conversation, which) {
    const name = `drawn-${which}`;
    const made = element("section", { "aria-labelledby": name, "data-which": which });
    made.append(element("h2", { id: name }, conversation.title));
    const frame = element("div", { class: "drawing", tabindex: "0", role: "group", "aria-labelledby": name });
    frame.append(draw(conversation));
    made.append(frame);
    return made;
  }

  function redraw() {
    const place = $("drawings");
    place.replaceChildren();
    if (!conversations.length) {
      place.append(element("p", {}, t("empty")));
      return;
    }
    place.append(section(shown(), 0));
    const beside = conversations[+$("beside").value];
    if ($("beside").value !== "" && beside) place.append(section(beside, 1));
    update(false);
  }

  // Stepping

  function describe(row, first) {
    const who = LANES.includes(row.kind) ? `${t(row.end)} → ${t(row.end === "client" ? "server" : "client")}` : t(row.end);
    const what = [labelOf(row, first), ...row.notes].filter(Boolean).join("; ");
    return `${ms(row.at)} ms, ${who}: ${what}`;
  }

  function update(follow = true) {
    const conversation = shown();
    if (!conversation) return;
    const rows = conversation.rows, last = Math.min(current, rows.length - 1), row = rows[last];
    for (const drawn of document.querySelectorAll("#drawings section")) {
      const own = drawn.dataset.which === "0", all = own ? rows : conversations[+$("beside").value].rows;
      const until = own ? last : all.filter((each) => each.at <= (row ? row.at : -Infinity)).length - 1;
      drawn.querySelectorAll("[data-row]").forEach((each) => {
        const at = +each.dataset.row;
        each.classList.toggle("hidden", at > (current === Infinity ? Infinity : until));
        if (each.matches(".link")) return;
        each.classList.toggle("current", current !== Infinity && at === until);
        if (follow && own && at === until && current !== Infinity) each.scrollIntoView({ block: "nearest" });
      });
    }
    $("now-client").textContent = row?.client || "–";
    $("now-server").textContent = row?.server || "–";
    $("now-core").textContent = row?.core || "–";
    $("now-framing").textContent = row?.framing || "–";
    $("now-deadline").textContent = row?.timer || "–";
    const number = row ? `${last + 1} ${t("of")} ${rows.length}. ` : "";
    $("said").textContent = row ? number + describe(row, firstNumbers(rows)) : "";
    $("back").disabled = $("first").disabled = last < 0;
    $("forward").disabled = $("last").disabled = last >= rows.length - 1;
    $("question").hidden = !($("predict").checked && last < rows.length - 1);
    if (row) inspect(conversation, last);
  }

  function go(index) {
    const rows = shown()?.rows ?? [];
    current = Math.max(-1, Math.min(index, rows.length - 1));
    update();
  }
  const here = () => Math.min(current, (shown()?.rows.length ?? 0) - 1);

  function stop() {
    clearTimeout(timer);
    timer = null;
    $("play").textContent = t("play");
  }

  function play() {
    const rows = shown()?.rows ?? [];
    if (here() >= rows.length - 1) go(-1);
    $("play").textContent = t("pause");
    const next = () => {
      const at = here();
      if (at >= rows.length - 1) return stop();
      const gap = at < 0 ? 0 : (rows[at + 1].at - rows[at].at) * 1000 * $("speed").value;
      timer = setTimeout(() => { go(at + 1); next(); }, Math.min(Math.max(gap, 0), 3000));
    };
    next();
  }

  function guess(end) {
    const row = shown().rows[here() + 1];
    if (!row) return;
    guesses += 1;
    hits += row.end === end;
    $("score").textContent = `${t(row.end === end ? "right" : "wrong")}: ${hits} ${t("of")} ${guesses}`;
    go(here() + 1);
  }

  // Bytes and header

  function inspect(conversation, at) {
    const row = conversation.rows[at], place = $("inspected");
    place.replaceChildren();
    if (row.segment) {
      const { flags, length, window: size, assumed } = row.segment;
      const first = firstNumbers(conversation.rows), body = element("tbody");
      const line = (name, value) => body.append(element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, value)));
      line(t("flags"), FLAGS.map((flag) => `${flag} ${flags.includes(flag) ? 1 : 0}`).join("  "));
      for (const name of ["seq", "ack"]) {
        const [whole, short] = [false, true].map((relative) => numbersOf(row, first, relative)[name]);
        line(t(name), whole === null ? t("meaningless") : `${whole} (${short})`);
      }
      line(t("length"), String(length ?? 0));
      if (size !== undefined) line(t("window"), String(size));
      place.append(element("table", {}, body));
      if (assumed) place.append(element("p", {}, t("assumed")));
    } else if (row.hex) {
      const bytes = bytesOf(row.hex).slice(0, 4096), lines = [];
      for (let offset = 0; offset < bytes.length; offset += 16) {
        const piece = bytes.slice(offset, offset + 16);
        const codes = [...piece].map((byte) => byte.toString(16).padStart(2, "0")).join(" ").padEnd(48);
        const text = [...piece].map((byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : "·")).join("");
        lines.push(`${offset.toString(16).padStart(4, "0")}  ${codes} ${text}`);
      }
      place.append(element("div", { class: "bytes", tabindex: "0", role: "group", "aria-labelledby": "inspector-title" }, lines.join("\n")));
    } else if (row.rtt) {
      place.append(element("p", {}, `${row.text}: ${row.rtt}`));
    } else {
      place.append(element("p", {}, t("pick")));
    }
  }

  // Exercises

  const segmentsOf = (conversation) => (conversation?.rows ?? []).filter((row) => row.segment);

  function askNumbers() {
    const rows = segmentsOf(shown()).slice(0, 16), place = $("numbers"), body = element("tbody");
    place.replaceChildren();
    $("numbers-result").textContent = "";
    $("numbers-result").className = "";
    if (!rows.length) return void place.append(element("p", {}, t("noSegments")));
    const head = element("tr");
    for (const name of ["", "flags", "length", "seq", "ack", ""]) head.append(element(name ? "th" : "td", name ? { scope: "col" } : {}, name && t(name).split(/[（(]/)[0]));
    rows.forEach((row, index) => {
      const line = element("tr", {}, element("td", {}, row.end === "client" ? "→" : "←"),
        element("td", {}, row.segment.flags.join(" ")), element("td", {}, String(row.segment.length ?? 0)));
      for (const name of ["seq", "ack"]) line.append(element("td", {}, element("input", { "data-name": name, inputmode: "numeric", "aria-label": `${name} ${index + 1}` })));
      line.append(element("td"));
      body.append(line);
    });
    place.append(element("table", {}, element("thead", {}, head), body));
  }

  function answers() {
    const first = firstNumbers(shown().rows);
    return segmentsOf(shown()).slice(0, 16).map((row) => numbersOf(row, first, true));
  }

  function checkNumbers() {
    let wrong = 0;
    answers().forEach((answer, index) => {
      const line = $("numbers").querySelectorAll("tbody tr")[index];
      const right = ["seq", "ack"].every((name) => line.querySelector(`[data-name=${name}]`).value.trim() === String(answer[name] ?? ""));
      line.lastChild.textContent = right ? "✓" : "✗";
      line.lastChild.className = right ? "right" : "wrong";
      wrong += !right;
    });
    $("numbers-result").textContent = wrong ? `${t("wrong")}: ${wrong}` : t("right");
    $("numbers-result").className = wrong ? "wrong" : "right";
  }

  function showNumbers() {
    answers().forEach((answer, index) => {
      const line = $("numbers").querySelectorAll("tbody tr")[index];
      for (const name of ["seq", "ack"]) line.querySelector(`[data-name=${name}]`).value = answer[name] ?? "";
    });
  }

  function askOrder() {
    const rows = segmentsOf(shown()), ends = rows.filter((row) => !row.segment.length);
    const chosen = [...ends.slice(0, 3), ...rows.filter((row) => row.segment.length).slice(0, 3), ...ends.filter((row) => ends.indexOf(row) > 2).slice(-3)];
    order = rows.filter((row) => chosen.includes(row)).map((row, index) => ({ row, index }));
    for (let at = order.length - 1; at > 0; at -= 1) {
      const other = Math.floor(Math.random() * (at + 1));
      [order[at], order[other]] = [order[other], order[at]];
    }
    showOrder();
  }

  function showOrder(focus) {
    const place = $("order"), first = firstNumbers(shown()?.rows ?? []);
    place.replaceChildren();
    $("order-result").textContent = "";
    order.forEach(({ row }, at) => {
      const text = `${row.end === "client" ? "→" : "←"} ${labelOf({ ...row }, first)}`;
      const item = element("li", { draggable: "true" }, element("span", {}, text));
      for (const [word, sign, step] of [["up", "↑", -1], ["down", "↓", 1]]) {
        const button = element("button", { "aria-label": `${t(word)}: ${text}` }, sign);
        button.disabled = !(at + step in order);
        button.addEventListener("click", () => move(at, at + step, step));
        item.append(button);
      }
      item.addEventListener("dragstart", (event) => event.dataTransfer.setData("text/plain", String(at)));
      item.addEventListener("dragover", (event) => event.preventDefault());
      item.addEventListener("drop", (event) => {
        event.preventDefault();
        const from = Number(event.dataTransfer.getData("text/plain"));
        if (from in order) move(from, at, 0);
      });
      place.append(item);
    });
    if (focus) (place.children[focus.at].querySelectorAll("button")[focus.step < 0 ? 0 : 1]).focus();
  }

  function move(from, to, step) {
    order.splice(to, 0, ...order.splice(from, 1));
    showOrder(step && to > 0 && to < order.length - 1 ? { at: to, step } : undefined);
  }

  function checkOrder() {
    const right = order.every((each, at) => each.index === at);
    $("order-result").textContent = t(right ? "right" : "wrong");
    $("order-result").className = right ? "right" : "wrong";
  }

  // A recording of the reader's own: TRANSCRIPT.md, version 1

  function read(text) {
    const lines = text.replace(/^\ufeff/, "").split(/\r?\n/), found = new Map();
    lines.forEach((line, index) => {
      if (line === "" && index === lines.length - 1) return;
      let item;
      try {
        item = JSON.parse(line);
        if (index === 0 && item.transcript !== 1) throw new Error("version");
        if (index > 0) take(found, item);
      } catch (error) {
        if (index > 0 && index === lines.length - 1 && error instanceof SyntaxError) return; // cut short
        throw Object.assign(error, { line: index + 1 });
      }
    });
    return [...found.values()].map(finish);
  }

  const NAMES = ["client", "server"];
  const data = (value) => (value === undefined ? "" : "hex" in value ? value.hex : hexOf(new TextEncoder().encode(value.text)));

  function take(found, item) {
    if (typeof item.id !== "number" || typeof item.at !== "number") throw new Error("id, at");
    let of = found.get(item.id);
    if (!of || item.input === "open") {
      const own = NAMES.includes(item.role) ? item.role : "";
      const other = own === "server" ? "client" : own === "client" ? "server" : "connection";
      of = { id: item.id, own, title: `#${item.id}: ${other} ${item.peer ?? ""}`.trim(), rows: of && !of.own ? of.rows : [], links: [] };
      found.set(item.id, of);
    }
    const own = of.own || "client", other = own === "client" ? "server" : "client";
    const add = (kind, end, text, more = {}) => of.rows.push({ kind, at: item.at, end, text, notes: [], item, ...more });
    if (item.observed !== undefined) {
      const end = NAMES.includes(item.end) ? item.end : own;
      if (item.observed === "segment" && NAMES.includes(item.from) && Array.isArray(item.flags) && typeof item.seq === "number") {
        const { flags, seq, ack, length, window: size, assumed } = item;
        add("segment", item.from, flags.join(" "), { segment: { flags: flags.map(String), seq, ack, length, window: size, assumed } });
      } else if (["send", "receive"].includes(item.observed) && typeof item.bytes === "number") {
        add("call", end, `${item.observed} ${item.bytes}`, { bytes: item.bytes });
      } else if (["connect", "accept", "half_close", "close"].includes(item.observed)) {
        add("call", end, item.observed.replace("_", "-"));
      } else if (item.observed === "tcp") {
        add("tcp", end, escapes(String(item.state)), item.rtt_ms > 0 ? { rtt: `rtt ${+item.rtt_ms} ms` } : {});
      } else if (item.observed === "note") {
        add("remark", end, escapes(String(item.text)));
      }
      return;
    }
    const events = (item.events ?? []).map((event) => event.reason ? `${event.event}: ${event.reason}` : String(event.event));
    const more = { core: String(item.state), framing: String(item.framing) };
    if (item.deadline !== null && item.deadline !== undefined) more.timer = `${(item.deadline - item.at).toPrecision(3)} s`;
    const decoded = (hex) => escapes(new TextDecoder().decode(bytesOf(hex)));
    const count = of.rows.length;
    if (item.input === "data") add("message", other, decoded(data(item.data)), { hex: data(item.data), ...more });
    if (item.input === "eof") add("eof", other, "end of stream", more);
    if (item.output) add("message", own, decoded(data(item.output)), { hex: data(item.output), ...more });
    if (item.eof) add("eof", own, "end of stream", more);
    if (of.rows.length === count) add("core", own, "", more);
    of.rows[count].notes = [...(["data", "eof", "open"].includes(item.input) ? [] : [item.input]), ...events];
  }

  function finish(conversation) {
    const rows = conversation.rows.map((row, index) => ({ row, index }))
      .sort((one, other) => one.row.at - other.row.at || one.index - other.index).map(({ row }) => row);
    let phase = "connection", client = "", server = "", core = "", framing = "", deadline = "";
    const seen = { client: [], server: [] };
    rows.forEach((row, at) => {
      if (row.kind === "tcp") [client, server] = row.end === "client" ? [row.text, server] : [client, row.text];
      if (phase === "connection" && (row.kind === "message" || row.segment?.length)) phase = "transfer";
      if (row.kind === "eof" || row.text === "close" || row.segment?.flags.some((flag) => flag === "FIN" || flag === "RST")) phase = "termination";
      core = row.core ?? core;
      framing = row.framing ?? framing;
      deadline = row.timer ?? deadline;
      Object.assign(row, { phase, client, server, core, framing, timer: deadline });
      if (row.bytes !== undefined) seen[row.end].push({ at, sends: row.text.startsWith("send"), bytes: row.bytes });
    });
    const links = [];
    for (const [end, other] of [NAMES, [...NAMES].reverse()]) {
      const received = seen[other].filter((call) => !call.sends)[Symbol.iterator]();
      let sent = 0, arrived = 0, last = null;
      for (const call of seen[end].filter((each) => each.sends)) {
        sent += call.bytes;
        while (arrived < sent) {
          const { value, done } = received.next();
          if (done) { last = null; break; }
          last = value;
          arrived += value.bytes;
        }
        if (!last) break;
        links.push([call.at, last.at]);
      }
    }
    return { ...conversation, rows, links };
  }

  async function load(file) {
    $("problem").textContent = "";
    try {
      conversations = read(await file.text());
      offer();
    } catch (error) {
      $("problem").textContent = t("damaged").replace("{n}", error.line ?? "?");
    }
  }

  // The page

  function offer() {
    stop();
    for (const id of ["which", "beside"]) {
      const options = conversations.map((each, index) => element("option", { value: index }, each.title));
      if (id === "beside") options.unshift(element("option", { value: "" }, t("none")));
      $(id).replaceChildren(...options);
    }
    begin();
  }

  function begin() {
    current = Infinity;
    redraw();
    askNumbers();
    askOrder();
  }

  function translate() {
    document.documentElement.lang = language;
    document.querySelectorAll("[data-t]").forEach((each) => { each.textContent = t(each.dataset.t); });
    $("language").value = language;
    const chosen = [$("which").value, $("beside").value, current];
    offer();
    if (chosen[0]) [$("which").value, $("beside").value] = chosen;
    begin();
    current = chosen[2];
    update(false);
  }

  $("language").addEventListener("change", () => { language = $("language").value; translate(); });
  $("theme").addEventListener("change", () => {
    if ($("theme").value) document.documentElement.dataset.theme = $("theme").value;
    else delete document.documentElement.dataset.theme;
  });
  $("file").addEventListener("change", () => { if ($("file").files[0]) load($("file").files[0]); });
  $("which").addEventListener("change", begin);
  $("beside").addEventListener("change", redraw);
  $("relative").addEventListener("change", () => { redraw(); showOrder(); });
  $("predict").addEventListener("change", () => { if ($("predict").checked) go(-1); update(); });
  $("guess-client").addEventListener("click", () => guess("client"));
  $("guess-server").addEventListener("click", () => guess("server"));
  const actions = {
    first: () => go(-1), back: () => go(here() - 1), forward: () => go(here() + 1), last: () => go(Infinity),
  };
  for (const [id, action] of Object.entries(actions)) $(id).addEventListener("click", () => { stop(); action(); });
  $("play").addEventListener("click", () => (timer ? stop() : play()));
  $("check-numbers").addEventListener("click", checkNumbers);
  $("show-numbers").addEventListener("click", showNumbers);
  $("shuffle").addEventListener("click", askOrder);
  $("check-order").addEventListener("click", checkOrder);
  const keys = { Home: "first", ArrowLeft: "back", ArrowRight: "forward", End: "last", p: "play" };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, select, textarea")) return;
    if (event.key in keys) {
      event.preventDefault();
      $(keys[event.key]).click();
    }
  });
  document.documentElement.classList.add("has-js");
  translate();
})();
