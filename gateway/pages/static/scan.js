// Where the browser can read codes by itself, a button opens the camera in the page.
const box = document.getElementById("scan");
if (box && "BarcodeDetector" in window && navigator.mediaDevices) {
  const [button, video] = box.children;
  const reader = new BarcodeDetector({ formats: ["qr_code"] });
  const stop = () => {
    video.srcObject?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    video.hidden = true;
  };
  const look = async () => {
    if (!video.srcObject) return;
    const codes = await reader.detect(video).catch(() => []);
    if (!codes.length) return setTimeout(look, 150);
    stop();
    const to = new URL(box.dataset.found, location.href);
    to.searchParams.set("reference", codes[0].rawValue);
    location.assign(to);
  };
  button.addEventListener("click", async () => {
    if (video.srcObject) return stop();
    try {
      video.srcObject = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment" },
      });
      video.hidden = false;
      await video.play();
      look();
    } catch {
      stop();
      box.hidden = true;
    }
  });
  addEventListener("pagehide", stop);
  box.hidden = false;
}
